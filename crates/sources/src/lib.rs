//! fairlead-sources
