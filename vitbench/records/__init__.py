"""The one contract between training and analysis: row types, ledger, tables."""
