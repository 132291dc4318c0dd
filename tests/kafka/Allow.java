import java.util.ArrayList;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

/** Grants rights to a user: BOOTSTRAP USER, then groups of OPERATIONS KIND NAME, such as `read,write topic chat`. */
class Allow {
    public static void main(String[] words) throws Exception {
        var rights = new ArrayList<AclBinding>();
        for (int at = 2; at + 2 < words.length; at += 3) {
            var kind = ResourceType.fromString(words[at + 1]);
            var what = new ResourcePattern(kind, words[at + 2], PatternType.LITERAL);
            for (String name : words[at].split(",")) {
                var operation = AclOperation.fromString(name);
                var who = new AccessControlEntry("User:" + words[1], "*", operation, AclPermissionType.ALLOW);
                rights.add(new AclBinding(what, who));
            }
        }
        try (var admin = Admin.create(Map.of("bootstrap.servers", words[0]))) {
            admin.createAcls(rights).all().get();
        }
    }
}
