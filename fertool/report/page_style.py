"""The style sheet of a page: light and dark, for phones, screens and paper."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --paper: #fff; --quiet: #57606a; \
--line: #d0d7de; --card: #f6f8fa; --accent: #0969da; --notice: #fff6f0; --heat: #0072b2;
color: var(--ink); background: var(--paper); font: 16px/1.5 system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #12161b; \
--quiet: #9aa4af; --line: #3a4048; --card: #1b2128; --accent: #6cb2ff; --notice: #2b1f17; \
--heat: #2f81b7; } }
body { max-width: 68rem; margin: 1.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.1rem; color: var(--quiet); font-weight: 600; margin: 0; } \
h2 { font-size: 1.3rem; margin-top: 2.5rem; border-bottom: 1px solid var(--line); \
overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin-top: 1.8rem; overflow-wrap: anywhere; }
a { color: var(--accent); }
.verdict { font-size: clamp(1.25rem, 4vw, 1.7rem); line-height: 1.3; font-weight: 650; \
margin: .4rem 0 1rem; overflow-wrap: anywhere; text-wrap: balance; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); \
gap: .75rem; margin: 1rem 0; }
.cards div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; \
padding: .6rem .9rem; }
.cards dt { color: var(--quiet); font-size: .9rem; } .cards dd { margin: 0; }
.cards dd.value { font-size: 1.5rem; font-weight: 650; font-variant-numeric: tabular-nums; }
nav ol { columns: 17rem; padding-left: 1.4rem; margin: .3rem 0; } \
nav li { overflow-wrap: anywhere; padding: .1rem 0; }
summary { cursor: pointer; } summary h3 { display: inline; }
details { margin: 1rem 0; } details[open] summary { margin-bottom: .6rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); \
text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid var(--quiet); vertical-align: bottom; }
td.number, th.number { text-align: right; } td.number { white-space: nowrap; }
td.text { overflow-wrap: break-word; } td.text:last-child { overflow-wrap: anywhere; }
small, figcaption, .quiet { color: var(--quiet); }
.notice { border-left: 4px solid #d55e00; background: var(--notice); padding: .6rem 1rem; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
figure.plot { display: inline-block; vertical-align: top; width: min(100%, 30rem); \
margin-right: 1.5rem; }
figure.plot img { width: 100%; }
@media (min-width: 48rem) and (max-width: 64rem) { figure.plot { \
width: calc(50% - 1.6rem); margin-right: 1.2rem; } }
.beside { display: flex; flex-wrap: wrap; gap: 0 3rem; align-items: flex-start; } \
.beside > * { max-width: 100%; } .beside figure { margin-top: 0; }
.matrix table { font-size: .85rem; } \
.matrix td { padding: .35rem .1rem; text-align: center; min-width: 2.1rem; border: 0; \
background: color-mix(in srgb, var(--heat) var(--part), var(--paper)); }
.matrix td.dark { color: #fff; }
.matrix thead th { writing-mode: vertical-rl; transform: rotate(180deg); border: 0; \
text-align: left; font-weight: 400; padding: .3rem .1rem; }
.matrix thead th:first-child { writing-mode: horizontal-tb; transform: none; }
.matrix tbody th { font-weight: 400; border: 0; padding: .35rem .5rem .35rem 0; \
overflow-wrap: anywhere; max-width: 8rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); \
gap: 1rem .75rem; padding: 0; list-style: none; }
.tiles.pairs { grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); }
.tiles figure { margin: 0; } .tiles .row { display: flex; gap: .3rem; }
.tiles img { width: min(100%, 9rem); min-width: 0; aspect-ratio: 1; object-fit: cover; \
border-radius: .25rem; image-rendering: auto; }
.tiles.pairs img { width: calc(33.3% - .2rem); }
.tiles figcaption { color: var(--ink); font-size: .9rem; line-height: 1.35; \
overflow-wrap: anywhere; }
@media (max-width: 30rem) { figure.plot { margin-right: 0; } \
th, td { padding: .25rem .25rem; } table { font-size: .8rem; } \
table.stacked, .stacked tbody, .stacked tr, .stacked td { display: block; } \
td.text:first-child { overflow-wrap: anywhere; min-width: 4.5rem; } \
.stacked thead { display: none; } .stacked tr { border-bottom: 2px solid var(--line); } \
.stacked td { border: 0; padding: .1rem 0; text-align: right; overflow: hidden; \
white-space: normal; } \
.stacked td::before { content: attr(data-title); float: left; color: var(--quiet); \
padding-right: 1rem; } \
.stacked td:first-child { font-weight: 650; text-align: left; padding-top: .5rem; } \
.stacked td:first-child::before { content: none; } \
.stacked td:last-child { padding-bottom: .5rem; } \
.tiles { grid-template-columns: repeat(2, 1fr); } .tiles.pairs { grid-template-columns: 1fr; } }
@media print { body { max-width: none; } nav { display: none; } \
h2, h3, figure, tr { break-inside: avoid; } }
"""
