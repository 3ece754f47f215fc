// The page of the picture panel. An answer of the server is posted to it: { svg }, or { message } while there is no picture.

const STYLE = `
  body { margin: 0; padding: 8px; }
  #message { font-style: italic; padding: 4px 0; min-height: 1.2em; }
  #picture { background: white; border-radius: 4px; overflow: auto; }
  #picture svg { display: block; max-width: 100%; height: auto; }
  #picture.whole svg { max-width: none; }
  #picture.old { opacity: 0.5; }
`;

const SCRIPT = `
  const picture = document.getElementById("picture"), message = document.getElementById("message");
  picture.addEventListener("click", () => picture.classList.toggle("whole"));
  window.addEventListener("message", ({ data }) => {
    message.textContent = data.message || "";
    picture.classList.toggle("old", !data.svg);
    if (!data.svg) return;
    const svg = new DOMParser().parseFromString(data.svg, "image/svg+xml").documentElement;
    picture.replaceChildren(document.importNode(svg, true));
  });
`;

/** The page: nothing in it is loaded from elsewhere, and no script runs but its own. */
function page(nonce = Math.random().toString(36).slice(2)) {
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-${nonce}';">
<style>${STYLE}</style>
</head>
<body><div id="message"></div><div id="picture" title="A click shows it in full size"></div>
<script nonce="${nonce}">${SCRIPT}</script></body>
</html>`;
}

module.exports = { page };
