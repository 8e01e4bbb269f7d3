"""Chat templates rendered within limits: a template's source and its context go in, text and marked spans come out.

A template comes from whoever made the model. jinja2's sandbox keeps it from the machine; this one keeps it from the
machine's time and memory too. All that can grow is charged for before it does: operators, methods, filters, output.
What templates may use beside Jinja's own is as transformers/utils/chat_template_utils.py (5.24) documents it.
"""

from .budget import Span, TemplateLimit
from .rendering import FAILURES, NotJinja, compiled, rendered

__all__ = ["FAILURES", "NotJinja", "Span", "TemplateLimit", "compiled", "rendered"]
