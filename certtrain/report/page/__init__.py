"""Pages for people, each one self-contained HTML file: of a run (`run`), of a sweep, a study or any runs (`study`).

Both are made of the same parts. `charts`, `training` and `margins` draw with matplotlib, `svg` puts a drawing into the
page in colours that follow its style sheet, `look` says how settings are told apart. `table`, `heat`, `waterfall`,
`gallery`, `costs`, `facts` and `jobs` are HTML. `published` knows figures of others. `render` fills `templates/`: what
stands there is the page, its style and the script that sorts and filters.
"""

from certtrain.report.page.run import write_report

__all__ = ["write_report"]
