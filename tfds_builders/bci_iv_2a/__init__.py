"""BCI Competition IV, data set 2a: imagined movement of hands, feet and tongue."""
