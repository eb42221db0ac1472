"""Two functions, or a function and a result: the verdict, what it rests on, why bits differ, tolerances."""
