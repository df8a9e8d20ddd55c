"""Pure KTO: values in, values out. Imports torch and the standard library only; reads and prints nothing."""
