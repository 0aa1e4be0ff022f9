//! What fuzz targets and the differential test share: bodies made up by chance, and a way to send
//! them. It checks nothing itself.

pub mod attempt;
pub mod body;
pub mod chance;
