"""What a kernel is: index expressions, loop nests, and the schedule that runs them."""
