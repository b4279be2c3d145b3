"""Generated code of the package clearing.v1; never edited by hand."""
