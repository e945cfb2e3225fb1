//! fairlead-control
