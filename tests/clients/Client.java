import java.io.OutputStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.security.cert.X509Certificate;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLException;

/** java Client.java URL: posts twice over connections of their own, and says what Java makes of them. */
public class Client {
    public static void main(String[] arguments) throws Exception {
        String session = null;
        for (int call = 1; call <= 2; call++) {
            HttpsURLConnection connection = (HttpsURLConnection) URI.create(arguments[0]).toURL().openConnection();
            connection.setConnectTimeout(10_000);
            connection.setReadTimeout(10_000);
            connection.setDoOutput(true);
            connection.setRequestProperty("Connection", "close");
            try (OutputStream body = connection.getOutputStream()) {
                body.write("{}".getBytes(StandardCharsets.UTF_8));
            } catch (SSLException refused) {
                System.out.println("refused: " + refused.getMessage());
                return;
            }
            int status = connection.getResponseCode();
            String answer = new String(connection.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
            X509Certificate certificate = (X509Certificate) connection.getServerCertificates()[0];
            // A resumed session keeps the time at which it was made.
            String made = Long.toString(connection.getSSLSession().orElseThrow().getCreationTime());
            System.out.printf("%s %d %s %s %s%n", made.equals(session) ? "resumed" : "new", status, answer,
                    certificate.getSubjectX500Principal(), certificate.getPublicKey().getAlgorithm());
            session = made;
        }
    }
}
