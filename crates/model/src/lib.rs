//! fairlead-model
