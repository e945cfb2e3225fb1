//! fairlead-proxy
