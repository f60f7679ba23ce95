"""The operator's desk: what people do about the work by hand. The command line and the console call the same acts."""
