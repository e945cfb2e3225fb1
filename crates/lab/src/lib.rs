//! fairlead-lab
