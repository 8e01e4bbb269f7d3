"""Examples in; token ids, loss masks and padded batches out. Every cut and every row left out is counted.

Shapes: B rows, T tokens. Which tokens are trained was decided where the text was rendered, and is not asked again.

Doors: `answer_facts`, `answers`, `bad_rows`, `batch_order`, `collation`, `data_report`, `diagnosis`, `encoding`,
`feed`, `packing`, `stored_rows`, `tally`.
"""
