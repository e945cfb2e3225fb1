//! fairlead-peering
