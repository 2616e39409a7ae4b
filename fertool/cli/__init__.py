"""The command line: one thin function per command, options in groups, one place for errors."""
