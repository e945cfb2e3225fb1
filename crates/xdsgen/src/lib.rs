//! fairlead-xdsgen
