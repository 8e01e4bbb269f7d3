"""Rows as the model reads them: every token, and which of them are trained.

Rows or an encoded set go in at `token_view.TokenView`; a book of pages (`token_book.py`) is shown as a widget where
there is a kernel and as a static page where there is none.
"""
