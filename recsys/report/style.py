"""How the page looks. One column of text, plots side by side where there is room, tables that scroll by themselves."""

STYLE = """
:root {
  --paper: #ffffff; --raised: #f5f6f8; --ink: #1b1f24; --soft: #59636e; --line: #d5dae0; --accent: #0a58ca;
  --shade: #00000028;
  --curve-0: #0a58ca; --curve-1: #b35900; --curve-2: #00755e; --curve-3: #7a3fb8; --curve-4: #6b5d3a;
  --curve-5: #c0262d;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --raised: #1e2329; --ink: #e4e8ec; --soft: #a0aab5; --line: #39424c; --accent: #7db3ff;
    --shade: #000000;
    --curve-0: #7db3ff; --curve-1: #ffb066; --curve-2: #4fd1b0; --curve-3: #cda2ff; --curve-4: #d3c08a;
    --curve-5: #ff8a8a;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 75rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 1rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p, li { max-width: 46rem; }
ul { padding-left: 1.25rem; }
li { margin: .3rem 0; }
h1 + section > h2 { margin-top: 0; }
.outcome { font-size: 1.1rem; }
.parts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); gap: 0 2.5rem; }
.parts > div { min-width: 0; }
.parts p { margin: 0 0 .6rem; }
.warning { color: var(--curve-5); font-weight: 600; }
.term { color: inherit; text-decoration: underline dotted; text-underline-offset: .2em; }
:target { background: var(--raised); outline: 2px solid var(--accent); }

.headline { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem;
  margin: 1.5rem 0; }
.headline div { display: flex; flex-direction: column-reverse; justify-content: flex-end; padding: .75rem 1rem;
  background: var(--raised); border-radius: .5rem; }
.headline dt { color: var(--soft); font-size: .875rem; line-height: 1.3; }
.headline dd { margin: 0; font-size: 1.6rem; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }

.facts { margin: 0; columns: 28rem 2; column-gap: 2rem; }
.facts div { break-inside: avoid; display: grid; grid-template-columns: minmax(7rem, 2fr) 3fr; gap: .75rem;
  padding: .3rem 0; border-bottom: 1px solid var(--line); }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; }

.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1.5rem 2rem; }
figure { margin: 0; min-width: 0; }
figure h3 { margin-top: 0; }
svg.plot { display: block; width: 100%; height: auto; max-width: 36rem; }
svg.plot text { font-family: system-ui, sans-serif; }
.nothing { color: var(--soft); padding: 1rem; background: var(--raised); border-radius: .5rem; margin: 0; }
.legend { list-style: none; margin: .25rem 0 .5rem; padding: 0; display: flex; flex-wrap: wrap; gap: .1rem 1.1rem;
  font-size: .875rem; }
.legend li { margin: 0; }
.note { margin: 0 0 .25rem; color: var(--soft); font-size: .875rem; }
.key { display: inline-block; width: 1.5rem; margin-right: .4rem; vertical-align: .25em; border-top: 2px solid; }
.key.reference { border-top-style: dashed; }
.key.alone { width: .55rem; height: .55rem; border: 1.5px solid; transform: rotate(45deg); vertical-align: .02em;
  margin: 0 .65rem 0 .3rem; }

summary { cursor: pointer; color: var(--accent); padding: .25rem 0; }
.scroll { overflow-x: auto; margin: .5rem 0; background:
  linear-gradient(to right, var(--paper) 40%, transparent) left / 2.5rem 100% no-repeat local,
  linear-gradient(to left, var(--paper) 40%, transparent) right / 2.5rem 100% no-repeat local,
  linear-gradient(to right, var(--shade), transparent) left / .6rem 100% no-repeat,
  linear-gradient(to left, var(--shade), transparent) right / .6rem 100% no-repeat; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; font-size: .8125rem; line-height: 1.4; overflow-wrap: normal; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
colgroup + colgroup { border-left: 1px solid var(--line); }
th, td { padding: .35rem .5rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
tr > :first-child { padding-left: 0; }
thead th { color: var(--soft); vertical-align: bottom; }
thead th[scope=colgroup] { text-align: center; }
tbody tr:last-child > * { border-bottom: 0; }
.scroll td:not(.figure) { white-space: nowrap; }
.prose { font-size: 1rem; width: 100%; max-width: 62rem; }
.prose tbody th { width: 20%; }
.figure { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
pre { overflow-x: auto; padding: .75rem 1rem; background: var(--raised); border-radius: .5rem; font-size: .875rem; }

@media (max-width: 40rem) {
  .prose thead { display: none; }
  .prose tr, .prose th, .prose td { display: block; border: 0; padding: 0; }
  .prose tbody th { width: auto; }
  .prose tr { padding: .6rem 0; border-bottom: 1px solid var(--line); }
  .parts table { font-size: .75rem; }
  .parts th, .parts td { padding: .3rem .25rem; }
  .prose td::before { content: attr(data-column) ": "; color: var(--soft); }
}

@media print {
  :root { --paper: #ffffff; --raised: #ffffff; --ink: #000000; --soft: #444444; --line: #bbbbbb; }
  :root, body { font-size: 10pt; }
  figure, tr { break-inside: avoid; }
  figure details { display: none; }
  .scroll table { font-size: 6.5pt; }
  .scroll th, .scroll td { padding: 1.5pt 2.5pt; }
  h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; background: none; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  summary { display: none; }
  details::details-content { content-visibility: visible; block-size: auto; }
  svg.plot { max-width: 11cm; }
}
"""
