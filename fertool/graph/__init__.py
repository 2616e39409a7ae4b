"""A network as data: the operator table, graphs of operators, and what is done with them."""
