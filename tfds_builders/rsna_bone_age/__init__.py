"""Hand X-rays of children with bone age in months (RSNA challenge 2017)."""
