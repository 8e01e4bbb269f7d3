"""A chat template has limits: whatever loops, grows or nests ends in one sentence, soon and in little memory."""

import time

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.data.formats.sandbox import FAILURES, NotJinja, TemplateLimit, compiled, rendered

MESSAGES = [{"role": "user", "content": "Hi there"}, {"role": "assistant", "content": "yes"}]
DOUBLED = "{% set ns = namespace(x=VALUE) %}{% for i in range(60) %}{% set ns.x = STEP %}{% endfor %}"
LISTS = DOUBLED.replace("VALUE", "[1]").replace("STEP", "[ns.x, ns.x]")
TUPLES = DOUBLED.replace("VALUE", "(1,)").replace("STEP", "(ns.x, ns.x)")
TOO_MUCH = {
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "blocks that double": "".join(
        f"{{% block b{i} %}}{{{{ self.b{i + 1}() }}}}{{{{ self.b{i + 1}() }}}}{{% endblock %}}" for i in range(40)
    )
    + "{% block b40 %}x{% endblock %}",
    "text times a number": "{{ 'a' * 300000000 }}",
    "text joined to itself": DOUBLED.replace("VALUE", "'a'").replace("STEP", "ns.x ~ ns.x") + "{{ ns.x }}",
    "text added to itself": DOUBLED.replace("VALUE", "'a'").replace("STEP", "ns.x + ns.x") + "{{ ns.x }}",
    "text of the template's own": "{% macro f() %}{% for i in range(99999) %}"
    + "x" * 10000
    + "{% endfor %}{% endmacro %}{{ f() }}",
    "a number of many digits": "{{ 10 ** 5000 }}",
    "a power of a power": "{{ 9 ** (9 ** 9) }}",
    "a number of bytes": "{{ (1).from_bytes(('a' * 3000000).encode(), 'big') // 3 }}",
    "center": "{{ 'a' | center(10 ** 9) }}",
    "ljust": "{{ 'a'.ljust(10 ** 9) }}",
    "expandtabs": "{{ ('\t' * 1000000).expandtabs(1000000) }}",
    "replace": "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
    "translate": "{{ ('a' * 100000).translate({97: 'b' * 100000}) }}",
    "join": "{{ ('a' * 1000000).join(range(100000) | map('string')) }}",
    "indent": "{{ ('\n' * 1000000) | indent(1000000) }}",
    "percent": "{{ '%0999999999d' % 1 }}",
    "percent star": "{{ '%*d' % (10 ** 9, 1) }}",
    "format": "{{ '{:>999999999}'.format(1) }}",
    "format of a width": "{{ '{:{w}}'.format(1, w=10 ** 9) }}",
    "format_map": "{{ '{a:>999999999}'.format_map({'a': 1}) }}",
    "batch": "{{ [1] | batch(10 ** 9, 0) | list }}",
    "round": "{{ 1.5 | round(10 ** 9, 'ceil') }}",
    "lists in lists as text": LISTS + "{{ ns.x }}",
    "lists in lists as JSON": LISTS + "{{ ns.x | tojson }}",
    "lists in lists compared": LISTS + "{{ ns.x == [[1], 2] }}",
    "tuples as a key": TUPLES + "{{ {ns.x: 1} | length }}",
    "slices kept": "{% set ns = namespace(l=[]) %}{% set x = 'a' * 1000000 %}{% for i in range(9999) %}"
    "{% set ns.l = ns.l + [x[1:]] %}{% endfor %}",
    "striptags": "{{ ('<!--' * 1000000) | striptags }}",
}
REFUSED = {
    "a macro of itself": "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "a long range": "{{ range(10 ** 9) | list }}",
    "an attribute of a class": "{{ messages.__class__.__mro__ }}",
    "zero": "{{ 1 // 0 }}",
    "an import": "{% import 'os' as o %}{{ o }}",
}
NO_TEMPLATE = {
    "syntax": "{% for %}",
    "a filter there is not": "{{ 1 | nofilter }}",
    "brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "too many loops": "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_template_that_takes_too_much_is_stopped(name):
    start = time.process_time()
    with pytest.raises(TemplateLimit):
        rendered(compiled(TOO_MUCH[name]), {"messages": MESSAGES}, size=100)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("name", REFUSED)
def test_what_python_raises_in_a_template_is_one_of_the_failures(name):
    with pytest.raises(FAILURES):
        rendered(compiled(REFUSED[name]), {"messages": MESSAGES}, size=100)


@pytest.mark.parametrize("name", NO_TEMPLATE)
def test_what_is_no_jinja_is_told(name):
    with pytest.raises(NotJinja):
        compiled(NO_TEMPLATE[name])


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}{{ loop.index }}/{{ loop.length }} {{ m['content'][1:] | trim | upper }}\n{% endfor %}",
        "{{ messages | tojson }}{{ 'a' ~ 1 ~ messages[0].role }}{{ '%s-%d' % ('a', 3) }}{{ '{}{x}'.format(1, x=2) }}",
        "{% macro w() %}[{{ caller() }}]{% endmacro %}{% call w() %}hi{% endcall %}{{ dict(a=1) }}{{ none }}{{ x }}",
        "{% set ns = namespace(n=0) %}{% for m in messages if m.role == 'user' %}{% set ns.n = ns.n + 1 %}{% endfor %}"
        "{{ ns.n }}",
        "{% for m in messages %}{{ m.role }}: {% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}",
        "{{ messages | map(attribute='role') | join(', ') }}{{ messages | selectattr('role', 'eq', 'user') | list }}",
        "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content.split('e')[-1] }}{% endfor %}",
    ],
)
def test_the_text_and_the_marks_are_those_of_transformers(source):
    marked = render_jinja_template([MESSAGES], chat_template=source, return_assistant_tokens_mask=True)
    text, spans = rendered(compiled(source), {"messages": MESSAGES, "tools": None, "documents": None}, size=100)
    assert text == marked[0][0]
    assert spans == [tuple(span) for span in marked[1][0]]


def test_a_trainer_tells_the_limit_once_and_a_refusal_on_one_line(tmp_path):
    folder = tiny_model_folder(tmp_path / "m")
    rows = [{"messages": MESSAGES}] * 50
    config = TrainingConfig(max_steps=1, hold_out=0)
    model, _ = FastModel.from_pretrained(folder, chat_template="{{ 'a' * 300000000 }}")
    with pytest.raises(ValueError, match="writes or copies more than"):
        Trainer(model, train_dataset=rows, args=config)
    model, _ = FastModel.from_pretrained(folder, chat_template="{{ raise_exception('no\x1b[31m\nsecond') }}")
    with pytest.raises(ValueError, match=r"refuses it: no\\x1b\[31m\\nsecond"):
        Trainer(model, train_dataset=rows, args=config)
    model, _ = FastModel.from_pretrained(folder, chat_template="{{ '\\ud800' }}{{ messages[0].content }}")
    with pytest.raises(ValueError, match="surrogate"):
        Trainer(model, train_dataset=rows, args=config)
