//! fairlead-runtime
