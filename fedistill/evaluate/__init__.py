"""What a run is worth and what it cost: metrics, `summary.json`, terminal table, HTML report."""
