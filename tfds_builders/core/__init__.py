"""What every builder shares: records, splits, duplicate audit, quarantine, dataset card."""
