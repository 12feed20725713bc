"""The style sheet of the report page."""

from __future__ import annotations

CSS = """
:root { --page:#fbfbfa; --ink:#1d2126; --soft:#5b636d; --line:#d9dce0; --card:#ffffff; --ran:#2f6fb3; --ranfill:#dcebfa;
  --critical:#b4540a; --criticalfill:#fdebd9; --failed:#b3261e; --failedfill:#fbe3e1; --idle:#8a9199; --idlefill:#f0f1f3; }
@media (prefers-color-scheme: dark) {
  :root { --page:#15181c; --ink:#e6e8eb; --soft:#a2aab3; --line:#353b43; --card:#1d2127; --ran:#6fb0f0; --ranfill:#1b3550;
    --critical:#f0a15a; --criticalfill:#4a2f16; --failed:#f28b82; --failedfill:#4a2220; --idle:#7b838c; --idlefill:#262b31; }
}
* { box-sizing: border-box; }
body { margin:0; background:var(--page); color:var(--ink); font:15px/1.5 system-ui, sans-serif; }
main { max-width:1200px; margin:0 auto; padding:24px 20px 48px; }
h1 { font-size:22px; line-height:1.3; margin:0; overflow-wrap:anywhere; }
h2 { font-size:16px; margin:32px 0 10px; }
p { margin:4px 0; }
.when, .legend, .then, caption, .facts span, .facts dt { color:var(--soft); }
.when, .legend, caption { font-size:13px; }
code { font:13px/1.4 ui-monospace, monospace; overflow-wrap:anywhere; }
.facts { display:grid; grid-template-columns:repeat(auto-fit, minmax(200px, 1fr)); gap:12px; margin:20px 0 0; }
.facts > div { background:var(--card); border:1px solid var(--line); border-radius:6px; padding:10px 14px; }
.facts dt { font-size:13px; }
.facts dd { margin:0; }
.facts strong { display:block; font-size:21px; line-height:1.3; }
.facts span { font-size:13px; overflow-wrap:anywhere; }
ul, ol { margin:0; padding-left:22px; }
.causes, .reasons, .failures { list-style:none; padding:0; }
.causes > li { border-left:3px solid var(--critical); padding:2px 0 2px 12px; margin-bottom:12px; }
.reasons li { font-weight:600; overflow-wrap:anywhere; }
.failures li { border-left:3px solid var(--failed); padding-left:12px; margin-bottom:8px; overflow-wrap:anywhere; }
ol.critical span { color:var(--soft); white-space:nowrap; }
svg { display:block; }
svg text { fill:var(--ink); font:13px system-ui, sans-serif; }
svg .tick, svg .took, svg .word { fill:var(--soft); font-size:12px; }
svg .kind { font-weight:600; }
.grid { stroke:var(--line); }
.bar { fill:var(--ran); }
.bar.critical { fill:var(--critical); }
.bar.failed { fill:var(--failed); }
.key { display:inline-block; width:12px; height:12px; border-radius:2px; background:var(--ran); margin:0 2px 0 8px; }
.key.critical { background:var(--critical); margin-left:0; }
.key.failed { background:var(--failed); }
.arc { fill:none; stroke:var(--idle); stroke-width:1.2; }
.arc.critical { stroke:var(--critical); stroke-width:2.2; }
.node rect { fill:var(--idlefill); stroke:var(--idle); stroke-dasharray:4 3; }
.node.ran rect { fill:var(--ranfill); stroke:var(--ran); stroke-dasharray:none; }
.node.critical rect { fill:var(--criticalfill); stroke:var(--critical); stroke-width:2; }
.node.failed rect { fill:var(--failedfill); stroke:var(--failed); stroke-dasharray:none; }
.scroll { overflow-x:auto; padding-bottom:6px; }
table { width:100%; border-collapse:collapse; font-size:14px; }
caption { text-align:left; padding-bottom:6px; }
th, td { text-align:left; vertical-align:top; padding:6px 14px 6px 0; border-top:1px solid var(--line); }
thead th { border-top:0; font-weight:600; color:var(--soft); }
tbody th { font-weight:400; }
.number, .took { text-align:right; white-space:nowrap; }
.state { white-space:nowrap; }
tr.ran .state { color:var(--ran); }
tr.failed .state { color:var(--failed); font-weight:600; }
.why { overflow-wrap:anywhere; }
@media (max-width: 700px) {
  main { padding:16px 14px 32px; }
  .facts { grid-template-columns:1fr 1fr; }
  thead { position:absolute; width:1px; height:1px; overflow:hidden; clip-path:inset(50%); }
  table, tbody, tr, tbody th, caption { display:block; }
  td, td.number, td.took { display:inline-block; text-align:left; margin-right:14px; }
  td.why { display:block; margin:0; }
  tr { border-top:1px solid var(--line); padding:8px 0; }
  tbody th, td { border:0; padding:1px 0; text-align:left; }
  td:empty { display:none; }
  td::before { content:attr(data-name) " "; color:var(--soft); }
}
"""
