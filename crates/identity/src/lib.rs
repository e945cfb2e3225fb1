//! fairlead-identity
