//! fairlead-xds
