"""Writes golden.json: what jinja2 3.1.6, set up by transformers 5.23.0, makes of small templates. Run in this folder."""
import json
from transformers.utils.chat_template_utils import _compile_jinja_template

VARS = {"t": " a<b>\tÄé ", "n": 7, "f": 2.5, "yes": True, "none_": None, "l": [3, 1, 2], "s": ["b", "A", "a"], "e": [],
        "d": {"a": {"c": [1, "x"]}, "b": 1}, "m": [{"r": "u", "c": "x y"}, {"r": "a", "c": ""}, {"r": "u", "c": "z", "k": {"v": 1}}]}
TEMPLATES = r"""
a {{ n }} b
{{ t }}|{{ t.strip() }}|{{ t|trim }}|{{ t.lstrip() }}|{{ t.rstrip(' é') }}
{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 1 / 3 }}
{{ 'a' + 'b' ~ 1 ~ none ~ true ~ 1.0 ~ [1, 'x'] ~ {'k': (1,)} }}
{{ 'ab' * 3 }} {{ [1] + [2] }} {{ '%s-%d' % ('x', 3) }} {{ 'x=%s' % n }}
{{ n == 7 and yes or false }} {{ not yes }} {{ none_ is none }} {{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' in t }} {{ 4 not in l }} {{ 'b' in d }}
{{ n if yes else 'no' }}{{ 'x' if not yes }}|{{ undefined_thing }}|{{ undefined_thing is defined }}|{{ d.zzz is undefined }}
{{ l[0] }} {{ l[-1] }} {{ l[1:] }} {{ l[::-1] }} {{ l[:-1] }} {{ t[1:3] }} {{ t[::-1] }} {{ t[-2] }} {{ l[9] is defined }} {{ l[5:9] }}
{{ d.a.c[1] }} {{ d['a']['c'][0] }} {{ d.get('q', 5) }} {{ d.get('q') }} {{ d.items()|list }} {{ d.keys()|list }} {{ d|length }}
{{ l|sort }} {{ s|sort }} {{ s|sort(case_sensitive=true) }} {{ l|sort(reverse=true) }} {{ m|sort(attribute='c')|map(attribute='c')|list }} {{ s|unique|list }}
{{ l|first }} {{ l|last }} {{ l|sum }} {{ l|min }} {{ l|max }} {{ l|join(',') }} {{ l|join }} {{ m|join('-', attribute='c') }} {{ e|first is defined }}
{{ m|selectattr('r', 'equalto', 'u')|list|length }} {{ m|rejectattr('c')|map(attribute='r')|join }} {{ m|map(attribute='k.v', default='d')|list }}
{{ l|select('odd')|list }} {{ l|reject('gt', 1)|list }} {{ ['x', '']|select|list }} {{ ['a', 'b']|map('upper')|list }}
{{ d|tojson }} {{ d|tojson(indent=2) }} {{ t|tojson }} {{ [1.5, none, true, 'é\n"']|tojson }} {{ {}|tojson }} {{ []|tojson(indent=4) }}
{{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }} {{ d|tojson(separators=(',', ':')) }} {{ 'é😀'|tojson(ensure_ascii=true) }} {{ "</script>&'"|tojson }}
{{ d|dictsort }} {{ {'k': 1}|items|list }} {{ 'x'|upper }} {{ 'Ä'|lower }} {{ 'hello wORLD'|title }} {{ 'hELLO'|capitalize }} {{ 'a-b'|replace('-', '+') }}
{{ undefined_thing|default('D') }} {{ ''|default('D') }}|{{ ''|default('D', true) }} {{ none_|default('D') }} {{ 0|d(1, boolean=true) }}
{{ '3'|int + 1 }} {{ 'x'|int }} {{ 'x'|int(9) }} {{ '2.7'|float }} {{ 3.7|int }} {{ 2.5|round }} {{ 3.14159|round(2) }} {{ -3|abs }} {{ 5|string + '!' }}
{{ 'a b  c'.split() }} {{ 'a,b,,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ 'a b c'.split(none, 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ' x  y '.split(' ') }} {{ ' a b '.rsplit(none, 1) }} {{ ' a b '.split(none, 1) }}
{{ 'a\nb\r\nc\n'.splitlines() }} {{ 'k=v=w'.partition('=') }} {{ 'k=v=w'.rpartition('=') }} {{ 'kv'.partition('=') }} {{ 'kv'.rpartition('=') }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abc'.find('c') }} {{ 'abc'.find('z') }} {{ 'äbä'.rfind('ä') }} {{ 'abca'.count('a') }} {{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('c') }}
{{ '-'.join(['a', 'b']) }} {{ 'aXbX'.replace('X', 'y', 1) }} {{ 'ab'.replace('', '.') }} {{ 'it is'.title() }} {{ 'x'.upper().lower() }} {{ '{} {0}'.format(1) if false else '{}-{x}'.format(1, x=2) }}
{{ '12'.isdigit() }} {{ ''.isdigit() }} {{ 'a1'.isalnum() }} {{ ' '.isspace() }} {{ 'aB'.isupper() }} {{ 'ab'.islower() }}
{% for x in l %}{{ loop.index }}/{{ loop.length }}:{{ x }}{{ ',' if not loop.last }}{% else %}none{% endfor %} {% for x in e %}x{% else %}none{% endfor %}
{% for x in l if x > 1 %}{{ loop.index0 }}{{ x }}{{ loop.first }}{{ loop.revindex }} {% endfor %}{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}
{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}{% for x in l %}{{ loop.cycle('a', 'b') }}{% endfor %}{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{% endfor %}
{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% if x == 2 %}{% break %}{% endif %}{% endfor %} {% for x in [1, 2] %}{% for y in [1, 2] %}{% if y == 2 %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}{% endfor %}
{% set x = 1 %}{% for i in l %}{% set x = i %}{% endfor %}{{ x }} {% set ns = namespace(x=1) %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }} {% if yes %}{% set x = 9 %}{% endif %}{{ x }}
{% set a, b = 1, 2 %}{{ a + b }} {% set blk %}in {{ n }}{% endset %}[{{ blk }}] {% set up | upper %}abc{% endset %}{{ up }} {% filter upper %}x{{ t|trim }}{% endfilter %} {% with q = 3 %}{{ q }}{% endwith %}{{ q is defined }}
{% macro f(a, b='B') %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }} {{ f(1, b=2) }} {{ f('x', 'y')|upper }} {% macro g() %}<{{ caller() }}>{% endmacro %}{% call g() %}in{% endcall %}
{% for x in [[1, [2]], 3] recursive %}{% if x is sequence %}[{{ loop(x) }}]{% else %}{{ x }}{% endif %}{% endfor %}
{% if n > 5 %}big{% elif n > 1 %}mid{% else %}small{% endif %} {% if e %}x{% elif none_ %}y{% else %}z{% endif %}
{%- if yes %} a {%- endif %} b {{- n -}} c {%+ if yes %} d{% endif %}|{# comment #}|{#- trimmed -#} e
{% raw %}{{ raw }} {% x %}{% endraw %} {{ '{{' }} {{ "}}" }} {{ '\x41\u00e9\n\t\\\'\101\q' }}
{{ range(3)|list }} {{ range(1, 4)|list }} {{ range(5, 0, -2)|list }} {{ dict(a=1, b='x') }} {{ [1, 2,] }} {{ (1,) }} {{ () }} {{ {} }} {{ {'a': [true, none]} }}
{{ n is number }} {{ n is string }} {{ t is string }} {{ d is mapping }} {{ l is sequence }} {{ l is iterable }} {{ n is odd }} {{ n is even }} {{ n is divisibleby 7 }} {{ n is not none }} {{ f is float }} {{ yes is boolean }} {{ yes is true }} {{ n is eq 7 }} {{ n is in [7] }} {{ t is callable }}
{{ 1e3 }} {{ 1.0 }} {{ 1e20 }} {{ 0.00001 }} {{ 1_000 }} {{ 123456789012 }} {{ 'it''s' }} {{ "q\"q" }} {{ ["it's", 'q"q', 'b\\n'] }}
{{ 'a\nb\n\nc'|indent }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\n\nb'|indent(2, blank=true) }} {{ 'a b c'|wordcount }} {{ 'abc'|list }} {{ 'abc'|reverse }} {{ l|reverse|list }} {{ "<&'\">"|e }} {{ 'é'|length }}
{{ none_.x }}
{{ undefined_thing.x }}
{{ undefined_thing + 1 }}
{{ raise_exception('stop ' ~ n) }}
{{ 1 + 'a' }}
{{ [1] < [2] }} {{ 'a' < 'b' }} {{ 1 == 1.0 }} {{ '1' == 1 }} {{ [1] == [1] }} {{ {'a': 1} == {'a': 1.0} }} {{ none_ == false }} {{ true == 1 }} {{ (1, 2) == [1, 2] }}
{{ n.x is defined }} {{ 'abc'.nope is defined }} {{ l.nope is defined }} {{ d['nope'] is defined }} {{ n|string|length }} {{ -n }} {{ +n }} {{ - f }} {{ -n|abs }}
{% generation %}G{{ n }}{% endgeneration %} {{ true and 'x' }} {{ '' or 'y' }} {{ not '' and 1 }} {{ 1 if 2 if 0 else 3 else 4 }} {{ n | string | upper ~ 'z' }}
{{ x | nofilter if false else 'ok' }} {{ 'a' ~ 'b' if n is defined and n else 'c' }} {{ (1 if yes else 2) + 1 }} {{ l|length > 2 and l|length < 9 }} {{ n is defined and n is number }}
{{ x | nofilter }}
{% for a, b in [(1, 2), [3, 4]] %}{{ a }}{{ b }} {% endfor %}{% for a, b in [1] %}x{% endfor %}
{% for x in 5 %}x{% endfor %}
{{ m[0].c.split(' ')[-1] }} {{ m[-1]['k']['v'] }} {{ m[0]['items'] is defined }} {{ ('a' if m[1].c else 'b') }} {{ m|map(attribute='c')|select|join('+') }}
""".strip("\n").split("\n")
MULTILINE = [
    "{% if yes %}\n  a\n{% endif %}\n  {% for x in l %}\n    {{ x }}\n  {% endfor %}\nend\n\n",
    "  {%- if yes %}\n  a\n  {%- endif %}\n\n  {{- n }}\n x {# c #}\n  {# c #}\ny\n",
    "a\n  {%+ if yes %}\nb{% endif +%}\n c  {% if yes -%}  \n\n d {%- endif -%}  \n e",
    "{% set x %}\n a\n{% endset %}\n[{{ x }}]\n{% macro m(a) %}\n- {{ a }}\n{% endmacro %}\n{{ m(1) }}{{ m(2) -}}\n z",
    "{% raw -%}\n  {{ a }}\n{%- endraw %}\n{% raw %}\n b\n  {% endraw %}\nc",
    "x\r\ny\rz {{ 'a\r\nb' }}\n",
]
out = []
for source in TEMPLATES + MULTILINE:
    case = {"source": source}
    try:
        case["text"] = _compile_jinja_template(source).render(**VARS)
    except Exception as e:
        case["error"] = type(e).__name__ + ": " + str(e)
    out.append(case)
with open("golden.json", "w", encoding="utf-8") as f:
    json.dump({"vars": VARS, "cases": out}, f, ensure_ascii=False, indent=1)
    f.write("\n")
for c in out:
    if "error" in c:
        print(c["source"][:60], "→", c["error"][:100])
