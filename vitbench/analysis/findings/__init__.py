"""What results support: typed findings, and the sentences that are made from them alone."""
