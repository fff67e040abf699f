"""What is shown where the pages have not been built."""

NOT_BUILT = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>helexa bench</title>
<style>body{font:16px/1.5 system-ui;max-width:40em;margin:3em auto;padding:0 1em;
color-scheme:light dark}code{background:#8882;padding:.1em .3em}</style>
<h1>helexa bench</h1>
<p>The API is served: try <a href="/api/summary">/api/summary</a>.</p>
<p>The pages are not built in this installation. In a checkout of helexa, with Node 20 or newer:</p>
<pre><code>make web</code></pre>
<p>and load this page again. <code>make dist</code> makes a wheel that carries them.</p></html>
"""
