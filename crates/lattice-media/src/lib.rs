//! Images, masks and metadata in and out of files.
