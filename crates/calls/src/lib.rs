//! fairlead-calls
