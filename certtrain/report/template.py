"""The page of a run, as a Jinja template without anything external: it can be mailed as it is."""

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>certtrain: {{ title }}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff;
         max-width: 1080px; margin: 2.5rem auto; padding: 0 1.5rem; }
  h1 { font-size: 1.45rem; margin: 0; }
  h2 { font-size: 1.05rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #ddd; padding-bottom: .25rem; }
  p.by { margin: .2rem 0 0; color: #555; }
  p.failure { margin: .3rem 0 0; color: #a33; overflow-wrap: anywhere; }
  table { border-collapse: collapse; }
  th, td { text-align: left; padding: .25rem 1.4rem .25rem 0; vertical-align: top; }
  th { font-weight: 600; color: #555; border-bottom: 1px solid #ddd; }
  td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
  tr.union td { font-weight: 700; color: #00704f; border-top: 1px solid #ddd; }
  td.images { color: #555; font-size: .9em; overflow-wrap: anywhere; }
  table.config { font-size: .88em; }
  table.config td { font-family: ui-monospace, monospace; padding-top: .1rem; padding-bottom: .1rem;
                    overflow-wrap: anywhere; }
  .columns { columns: 2 24rem; column-gap: 2rem; }
  .columns table { width: 100%; }
  .columns tr { break-inside: avoid; }
  img { max-width: 100%; height: auto; display: block; margin: .4rem 0 1rem; }
  footer { margin-top: 2.5rem; color: #777; font-size: .85em; }
</style>
</head>
<body>
<h1>{{ title[0] | upper }}{{ title[1:] }}</h1>
<p class="by">{{ verifiers }}</p>

<h2>Result</h2>
<table>
  <tr><th>what</th><th class="number">%</th><th class="number">images</th>
    <th class="number">judged</th><th class="number">failed</th><th class="number">skipped</th></tr>
  {% for row in rows %}
  <tr{% if row.union %} class="union"{% endif %}>
    <td>{{ row.what }}</td><td class="number">{{ row.percent }}</td><td class="number">{{ row.images }}</td>
    <td class="number">{{ row.judged }}</td><td class="number">{{ row.failed }}</td>
    <td class="number">{{ row.skipped }}</td>
  </tr>
  {% endfor %}
</table>
{% for line in failures %}
<p class="failure">{{ line }}</p>
{% endfor %}

{% if stages %}
<h2>{{ stages_heading }}</h2>
<table>
  <tr><th>stage</th><th class="number">asked</th><th class="number">wrong</th><th class="number">verified</th>
    <th class="number">falsified</th><th class="number">failed</th><th class="number">left</th>
    <th class="number">seconds</th></tr>
  {% for stage in stages %}
  <tr><td>{{ stage.stage }}</td><td class="number">{{ stage.asked }}</td>
    <td class="number">{{ stage.wrong }}</td><td class="number">{{ stage.verified }}</td>
    <td class="number">{{ stage.falsified }}</td><td class="number">{{ stage.failed }}</td>
    <td class="number">{{ stage.left }}</td><td class="number">{{ stage.seconds }}</td></tr>
  {% endfor %}
</table>
{% endif %}

{% if statuses %}
<h2>Statuses</h2>
<table>
  <tr>
    <th>status</th><th class="number">images</th><th class="number">%</th>
    <th>meaning</th><th>image numbers</th>
  </tr>
  {% for status in statuses %}
  <tr>
    <td>{{ status.name }}</td><td class="number">{{ "{:,}".format(status.count) }}</td>
    <td class="number">{{ "%.2f" | format(status.percent) }}</td><td>{{ status.meaning }}</td>
    <td class="images">{{ status.images }}
      {%- for message in status.messages %}<br>{{ message }}{% endfor %}</td>
  </tr>
  {% endfor %}
</table>
{% endif %}

{% if certifications %}
<h2>Certified afterwards</h2>
<table>
  <tr><th class="number">eps</th><th class="number">images</th><th class="number">natural %</th>
    <th class="number">attacked %</th><th class="number">certified %</th><th>by</th><th>report</th></tr>
  {% for one in certifications %}
  <tr><td class="number">{{ one.eps }}</td><td class="number">{{ one.images }}</td>
    {%- for value in one.accuracies %}<td class="number">{{ value }}</td>{% endfor %}
    <td>{{ one.by }}</td>
    <td>{% if one.page %}<a href="{{ one.page | urlencode }}">{{ one.name }}</a>{% else %}{{ one.name }}{% endif %}</td>
  </tr>
  {% endfor %}
</table>
{% endif %}

{% for plot in plots %}
<h2>{{ plot.heading }}</h2>
<img alt="{{ plot.heading }}" src="data:image/png;base64,{{ plot.data }}">
{% endfor %}

{% for table in tables %}
<h2>{{ table.title }}</h2>
<p class="by">{{ table.note }}</p>
<table>
  <tr>{% for column in table.columns %}<th class="number">{{ column }}</th>{% endfor %}</tr>
  {% for row in table.rows %}
  <tr>{% for cell in row %}<td class="number">{{ cell }}</td>{% endfor %}</tr>
  {% endfor %}
</table>
{% endfor %}

<h2>Facts</h2>
<table>
  {% for name, value in facts %}
  <tr><td>{{ name }}</td><td>{{ value }}</td></tr>
  {% endfor %}
</table>

{% if config %}
<h2>Configuration</h2>
<div class="columns">
<table class="config">
  {% for key, value in config %}
  <tr><td>{{ key }}</td><td>{{ value }}</td></tr>
  {% endfor %}
</table>
</div>
{% endif %}

<footer>{{ directory }} · certtrain {{ version }}</footer>
</body>
</html>
"""
