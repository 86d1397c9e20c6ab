"""The laboratory: experiments, records, studies and batches; it uses the library, never the other way."""
