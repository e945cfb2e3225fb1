//! fairlead-resources
