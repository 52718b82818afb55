"""Where an inference spends its time, or its instructions: operator by operator, with what bounds each of them."""
