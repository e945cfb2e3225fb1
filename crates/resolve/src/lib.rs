//! fairlead-resolve
