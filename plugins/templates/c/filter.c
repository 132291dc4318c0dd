// Rejects messages with the word of the settings in the title or the text.
#include "filter.h"

verdict judge(void) {
    text word = setting(T("word"), T("gossip"));
    if (text_has(publish_title(), word) || text_has(GET(publish_content(), "text"), word)) {
        return reject(T("403"), JOIN(T("no "), word, T(" here")));
    }
    return allow();
}
