//! fairlead-walk
