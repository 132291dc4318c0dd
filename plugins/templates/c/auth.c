// Admits clients with the token of the settings, as the user that they claim to be.
#include "auth.h"

answer admit(const transport *from, const claim *said) {
    (void)from;
    if (!said->token.is_some) return abstain();
    text token = setting(T("token"), T(""));
    if (!text_is(said->token.val, token) || !said->uid.is_some) return refuse(T("401"), T("wrong token"));
    return let_in((admission){.uid = said->uid.val});
}
