//! fairlead-engine
