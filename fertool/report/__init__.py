"""Messages, tables, figures and the page: the only place that knows Rich and Matplotlib."""
