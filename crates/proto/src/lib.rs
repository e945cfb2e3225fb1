//! fairlead-proto
