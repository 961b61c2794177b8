"""Several workers that train one stack."""
