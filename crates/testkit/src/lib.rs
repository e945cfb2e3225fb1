//! fairlead-testkit
