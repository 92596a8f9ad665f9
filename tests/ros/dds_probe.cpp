// Joins a DDS domain with an enclave's files and writes to, or reads from, one topic of opaque bytes.
// usage: dds_probe ENCLAVE_FOLDER|none DOMAIN pub|sub TOPIC SECONDS; prints `refused`, `matched N` or `received N`.
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <iostream>
#include <thread>

#include <fastdds/dds/domain/DomainParticipant.hpp>
#include <fastdds/dds/domain/DomainParticipantFactory.hpp>
#include <fastdds/dds/log/Log.hpp>
#include <fastdds/dds/publisher/DataWriter.hpp>
#include <fastdds/dds/publisher/Publisher.hpp>
#include <fastdds/dds/subscriber/DataReader.hpp>
#include <fastdds/dds/subscriber/SampleInfo.hpp>
#include <fastdds/dds/subscriber/Subscriber.hpp>
#include <fastdds/dds/topic/TopicDataType.hpp>
#include <fastdds/dds/topic/TypeSupport.hpp>
#include <fastdds/rtps/transport/UDPv4TransportDescriptor.h>

using namespace eprosima::fastdds::dds;
using eprosima::fastrtps::rtps::InstanceHandle_t;
using eprosima::fastrtps::rtps::SerializedPayload_t;
using Clock = std::chrono::steady_clock;

class Number : public TopicDataType {
public:
  Number() { setName("number"); m_typeSize = 8; m_isGetKeyDefined = false; }
  bool serialize(void* data, SerializedPayload_t* payload) override {
    std::memcpy(payload->data, "\0\1\0\0", 4);  // CDR, little endian
    std::memcpy(payload->data + 4, data, 4);
    payload->encapsulation = CDR_LE;
    payload->length = 8;
    return true;
  }
  bool deserialize(SerializedPayload_t* payload, void* data) override {
    std::memcpy(data, payload->data + 4, 4);
    return true;
  }
  std::function<uint32_t()> getSerializedSizeProvider(void*) override { return [] { return 8u; }; }
  void* createData() override { return new uint32_t(7); }
  void deleteData(void* data) override { delete static_cast<uint32_t*>(data); }
  bool getKey(void*, InstanceHandle_t*, bool) override { return false; }
};

DomainParticipantQos qos_of(const std::string& folder) {
  DomainParticipantQos qos;
  qos.transport().use_builtin_transports = false;
  auto udp = std::make_shared<eprosima::fastdds::rtps::UDPv4TransportDescriptor>();
  udp->interfaceWhiteList.push_back("127.0.0.1");
  qos.transport().user_transports.push_back(udp);
  if (folder == "none") return qos;
  auto& properties = qos.properties().properties();
  const std::string auth = "dds.sec.auth.builtin.PKI-DH.", access = "dds.sec.access.builtin.Access-Permissions.";
  properties.emplace_back("dds.sec.auth.plugin", "builtin.PKI-DH");
  properties.emplace_back("dds.sec.crypto.plugin", "builtin.AES-GCM-GMAC");
  properties.emplace_back("dds.sec.access.plugin", "builtin.Access-Permissions");
  const std::string at = "file://" + folder + "/";
  properties.emplace_back(auth + "identity_ca", at + "identity_ca.cert.pem");
  properties.emplace_back(auth + "identity_certificate", at + "cert.pem");
  properties.emplace_back(auth + "private_key", at + "key.pem");
  properties.emplace_back(access + "permissions_ca", at + "permissions_ca.cert.pem");
  properties.emplace_back(access + "governance", at + "governance.p7s");
  properties.emplace_back(access + "permissions", at + "permissions.p7s");
  return qos;
}

int said(const std::string& words) {
  std::cout << words << std::endl;
  _exit(0);
}

int main(int, char** argv) {
  Log::ClearConsumers();  // its lines would be mixed with the answer
  const std::string topic_name = argv[4];
  const auto end = Clock::now() + std::chrono::milliseconds(int(1000 * std::atof(argv[5])));
  auto participant =
      DomainParticipantFactory::get_instance()->create_participant(std::atoi(argv[2]), qos_of(argv[1]));
  if (participant == nullptr) return said("refused");
  TypeSupport(new Number).register_type(participant);
  auto topic = participant->create_topic(topic_name, "number", TOPIC_QOS_DEFAULT);
  uint32_t number = 7;
  if (std::string(argv[3]) == "pub") {
    auto writer = participant->create_publisher(PUBLISHER_QOS_DEFAULT)->create_datawriter(topic, DATAWRITER_QOS_DEFAULT);
    if (writer == nullptr) return said("refused");
    for (; Clock::now() < end; std::this_thread::sleep_for(std::chrono::milliseconds(20))) writer->write(&number);
    PublicationMatchedStatus status;
    writer->get_publication_matched_status(status);
    return said("matched " + std::to_string(status.total_count));
  }
  auto reader = participant->create_subscriber(SUBSCRIBER_QOS_DEFAULT)->create_datareader(topic, DATAREADER_QOS_DEFAULT);
  if (reader == nullptr) return said("refused");
  int received = 0;
  SampleInfo info;
  for (; Clock::now() < end; std::this_thread::sleep_for(std::chrono::milliseconds(20)))
    while (reader->take_next_sample(&number, &info) == ReturnCode_t::RETCODE_OK) received += info.valid_data;
  return said("received " + std::to_string(received));
}
