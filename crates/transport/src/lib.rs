//! fairlead-transport
